{{/* Labels of what belongs to the release alone. Helm sets managed-by on all that it makes. */}}
{{- define "modelyard.labels" -}}
app.kubernetes.io/name: modelyard
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "modelyard.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{/* The widest way in which the yard may be mounted. */}}
{{- define "modelyard.access" -}}
{{ has "ReadWriteMany" .Values.yard.accessModes | ternary "ReadWriteMany" "ReadWriteOnce" }}
{{- end }}

{{/* Where the hubs are, as JSON: `dict "root" $ "own" HUBS-OF-A-PIPELINE`. */}}
{{- define "modelyard.hubs" -}}
{{- $ours := printf "http://modelyard-hub.%s.svc:8000" .root.Release.Namespace -}}
{{- $hubs := dict -}}
{{- range $hub, $public := dict "modelscope" "https://modelscope.cn" "huggingface" "https://huggingface.co" -}}
{{- $default := $.root.Values.hub.enabled | ternary $ours $public -}}
{{- $address := get ($.own | default dict) $hub | default (get $.root.Values.hubs $hub) | default $default -}}
{{- $host := (urlParse $address).host | lower | splitList ":" | first -}}
{{- if or (eq $host "localhost") (eq $host "0.0.0.0") (hasPrefix "127." $host) -}}
{{- fail (printf "hubs.%s: %q is another machine for a pod: itself; write the address under which pods reach it" $hub $address) -}}
{{- end -}}
{{- $_ := set $hubs $hub $address -}}
{{- end -}}
{{- toJson $hubs -}}
{{- end }}

{{/* What is common to all pods here: they pass the Pod Security Standard `restricted`. */}}
{{- define "modelyard.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "modelyard.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{/* Where a pod that has the yard may go, and by which Secret its image comes. */}}
{{- define "modelyard.yardPod" -}}
{{- if .Values.pullSecret }}
imagePullSecrets:
  - name: {{ .Values.pullSecret | quote }}
{{- end }}
{{- if eq (include "modelyard.access" .) "ReadWriteOnce" }}
affinity:
  podAffinity:
    requiredDuringSchedulingIgnoredDuringExecution:
      - labelSelector:
          matchLabels:
            modelyard.dev/yard: {{ .Values.yard.claim | quote }}
        topologyKey: kubernetes.io/hostname
{{- end }}
{{- end }}

{{/* A claim that stays when the release goes: `dict "root" $ "of" VALUES "labels" TEXT`. */}}
{{- define "modelyard.claim" -}}
apiVersion: v1
kind: PersistentVolumeClaim
metadata:
  name: {{ .of.claim | quote }}
  namespace: {{ .root.Release.Namespace | quote }}
  labels:
    {{- include "modelyard.labels" .root | nindent 4 }}
    {{- .labels | nindent 4 }}
  annotations:
    helm.sh/resource-policy: keep
spec:
  accessModes: {{ toJson .of.accessModes }}
  {{- if not (kindIs "invalid" .of.storageClass) }}
  storageClassName: {{ .of.storageClass | quote }}
  {{- end }}
  resources:
    requests:
      storage: {{ .of.size | quote }}
{{- end }}
