{{/*
What a driver is told, as the data of its ConfigMap in JSON: `dict "root" $ "pipeline" VALUES`. The run is empty: the driver finds out which it is, by
the pipeline, the image and the tick.
*/}}
{{- define "modelyard.told" -}}
{{- $values := .root.Values -}}
{{- $hubs := include "modelyard.hubs" (dict "root" .root "own" .pipeline.hubs) | fromJson -}}
{{- $settings := dict "hubs" $hubs "jobs" (.pipeline.jobs | default 1 | int) "force" (.pipeline.force | default list | sortAlpha) -}}
{{- $place := dict "namespace" .root.Release.Namespace "image" (include "modelyard.image" .root) "claim" $values.yard.claim -}}
{{- $place = merge $place (dict "access" (include "modelyard.access" .root) "secret" $values.tokensSecret "pull_secret" $values.pullSecret) -}}
{{- $place = merge $place (dict "queue" $values.queue "driver_memory" $values.driverMemory) -}}
{{- $data := dict "run.json" (toPrettyJson (dict "run" "" "settings" $settings "place" $place)) "pipeline.yaml" .pipeline.spec -}}
{{- /* YAML takes this letter for the end of a line, which JSON does not; of the others of this kind `toJson` takes care. */ -}}
{{- toJson $data | replace "\u0085" "\\u0085" -}}
{{- end }}

{{/* Labels of drivers: `dict "root" $ "pipeline" NAME-IN-THE-FILE "schedule" NAME-OF-THE-CRONJOB`, the last where there is one. */}}
{{- define "modelyard.driverLabels" -}}
modelyard.dev/role: driver
modelyard.dev/yard: {{ .root.Values.yard.claim | quote }}
modelyard.dev/pipeline: {{ .pipeline | quote }}
{{- with .schedule }}
modelyard.dev/schedule: {{ . | quote }}
{{- end }}
{{- end }}

{{/* The spec of a driver's Job, the same as `modelyard render` prints: what their labels need, and "config", the name of the ConfigMap. */}}
{{- define "modelyard.driverSpec" -}}
backoffLimit: 6
podReplacementPolicy: Failed
podFailurePolicy:
  rules:
    - action: Ignore
      onPodConditions:
        - {type: DisruptionTarget, status: "True"}
    - action: Ignore
      onExitCodes: {containerName: driver, operator: In, values: [75]}
    - action: FailJob
      onExitCodes:
        containerName: driver
        operator: In
        values: [1, 64, 65, 66, 69, 70, 73, 74, 76, 77, 78, 79, 80, 81, 82, 83, 84, 85, 124, 130]
template:
  metadata:
    labels:
      app.kubernetes.io/name: modelyard
      app.kubernetes.io/managed-by: modelyard
      {{- include "modelyard.driverLabels" . | nindent 6 }}
  spec:
    restartPolicy: Never
    terminationGracePeriodSeconds: 30
    automountServiceAccountToken: true
    serviceAccountName: modelyard-driver
    enableServiceLinks: false
    securityContext:
      {{- include "modelyard.podSecurity" .root | nindent 6 }}
    containers:
      - name: driver
        image: {{ include "modelyard.image" .root }}-light
        command: [python, -m, modelyard.run.driver, /etc/modelyard/run.json, --yard, /yard]
        env:
          - name: HOME
            value: /home/modelyard
          {{- with .root.Values.tokensSecret }}
          - name: MODELSCOPE_API_TOKEN
            valueFrom:
              secretKeyRef: {name: {{ . | quote }}, key: modelscope, optional: true}
          - name: HF_TOKEN
            valueFrom:
              secretKeyRef: {name: {{ . | quote }}, key: huggingface, optional: true}
          {{- end }}
          - name: MODELYARD_JOB
            valueFrom:
              fieldRef: {fieldPath: "metadata.labels['batch.kubernetes.io/job-name']"}
        resources:
          requests: {cpu: 250m, memory: {{ .root.Values.driverMemory | quote }}}
          limits: {cpu: 250m, memory: {{ .root.Values.driverMemory | quote }}}
        securityContext:
          {{- include "modelyard.containerSecurity" .root | nindent 10 }}
        terminationMessagePath: /dev/termination-log
        volumeMounts:
          - {name: yard, mountPath: /yard}
          - {name: home, mountPath: /home/modelyard}
          - {name: tmp, mountPath: /tmp}
          - {name: run, mountPath: /etc/modelyard, readOnly: true}
    volumes:
      - name: yard
        persistentVolumeClaim: {claimName: {{ .root.Values.yard.claim | quote }}}
      - name: home
        emptyDir: {sizeLimit: 2Gi}
      - name: tmp
        emptyDir: {sizeLimit: 20Gi}
      - name: run
        configMap: {name: {{ .config }}}
    {{- include "modelyard.yardPod" .root | indent 4 }}
{{- end }}

{{/*
The pipeline's name as its file has it: `dict "key" KEY "pipeline" VALUES`. Fails where the text cannot be a pipeline's; what is wrong with its steps,
the driver says in a run that ends at once.
*/}}
{{- define "modelyard.nameOf" -}}
{{- $where := printf "pipelines.%s.spec" .key -}}
{{- $read := fromYaml .pipeline.spec -}}
{{- if and (hasKey $read "Error") (not (hasKey $read "steps")) -}}
{{- fail (printf "%s: this is no pipeline's file: %s; give its text: --set-file %s=FILE" $where (get $read "Error" | toString) $where) -}}
{{- end -}}
{{- if not (kindIs "map" (get $read "steps")) -}}
{{- fail (printf "%s: this is no pipeline's file: it has no steps; give its text: --set-file %s=FILE" $where $where) -}}
{{- end -}}
{{- $name := get $read "name" -}}
{{- if not (and (hasKey $read "name") (kindIs "string" $name)) -}}
{{- fail (printf "%s: the file needs a name that is a word, such as `name: reviews`; words that YAML 1.1 takes for something else need quotes" $where) -}}
{{- end -}}
{{- if or (gt (len $name) 52) (not (regexMatch "^[a-z]([a-z0-9-]*[a-z0-9])?$" $name)) -}}
{{- fail (printf "%s: %q cannot be a pipeline's name: lower-case letters, digits and '-', beginning with a letter" $where $name) -}}
{{- end -}}
{{- range .pipeline.force -}}
{{- if not (or (hasKey (get $read "steps") .) (regexMatch "^fetch-[0-9a-f]{8}$" .)) -}}
{{- fail (printf "pipelines.%s.force: there is no step %q; the steps are %s" $.key . (keys (get $read "steps") | sortAlpha | join ", ")) -}}
{{- end -}}
{{- end -}}
{{- $name -}}
{{- end }}

{{/*
Five fields of cron as Kubernetes takes them: `dict "key" KEY "cron" TEXT`. Fails with the field that is wrong, before anything is installed.
*/}}
{{- define "modelyard.checkedCron" -}}
{{- $where := printf "pipelines.%s.schedule" .key -}}
{{- $fields := splitList " " (regexReplaceAll "\\s+" (trim .cron) " ") -}}
{{- if ne (len $fields) 5 -}}
{{- fail (printf "%s: %q has %d fields, not 5: minute, hour, day of the month, month, day of the week, such as '0 3 * * *'" $where .cron (len $fields)) -}}
{{- end -}}
{{- $months := "[Jj][Aa][Nn]|[Ff][Ee][Bb]|[Mm][Aa][RrYy]|[Aa][Pp][Rr]|[Jj][Uu][NnLl]|[Aa][Uu][Gg]|[Ss][Ee][Pp]|[Oo][Cc][Tt]|[Nn][Oo][Vv]|[Dd][Ee][Cc]" -}}
{{- $days := "[Ss][Uu][Nn]|[Mm][Oo][Nn]|[Tt][Uu][Ee]|[Ww][Ee][Dd]|[Tt][Hh][Uu]|[Ff][Rr][Ii]|[Ss][Aa][Tt]" -}}
{{- $values := list "[0-5]?[0-9]" "[01]?[0-9]|2[0-3]" "0?[1-9]|[12][0-9]|3[01]" (printf "0?[1-9]|1[0-2]|%s" $months) (printf "0?[0-6]|%s" $days) -}}
{{- range $at, $field := $fields -}}
{{- $value := index $values $at -}}
{{- range splitList "," $field -}}
{{- $ends := regexReplaceAll "/.*" . "" | splitList "-" -}}
{{- $backward := false -}}
{{- if and (eq (len $ends) 2) (regexMatch "^[0-9]+$" (first $ends)) (regexMatch "^[0-9]+$" (last $ends)) -}}
{{- $backward = gt (first $ends | trimPrefix "0" | default "0" | int) (last $ends | trimPrefix "0" | default "0" | int) -}}
{{- end -}}
{{- if or $backward (not (regexMatch (printf "^(\\*|(%s)(-(%s))?)(/[1-9][0-9]?)?$" $value $value) .)) -}}
{{- $words := list "minute" "hour" "day of the month" "month" "day of the week (0, Sunday, to 6)" -}}
{{- fail (printf "%s: %q is no %s" $where . (index $words $at)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- join " " $fields -}}
{{- end }}
