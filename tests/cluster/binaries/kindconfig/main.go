// Command kindconfig reads kind's configuration strictly, by kind's own types: `kindconfig FILE` ends with 1 and the reason where kind would refuse the file.
package main

import (
	"bytes"
	"fmt"
	"os"

	"go.yaml.in/yaml/v3"
	"sigs.k8s.io/kind/pkg/apis/config/v1alpha4"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: kindconfig FILE")
		os.Exit(2)
	}
	cluster, err := read(os.Args[1])
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", os.Args[1], err)
		os.Exit(1)
	}
	fmt.Printf("%d nodes\n", len(cluster.Nodes))
}

func read(path string) (*v1alpha4.Cluster, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	cluster := &v1alpha4.Cluster{}
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	decoder.KnownFields(true)
	if err := decoder.Decode(cluster); err != nil {
		return nil, err
	}
	if cluster.Kind != "Cluster" || cluster.APIVersion != "kind.x-k8s.io/v1alpha4" {
		return nil, fmt.Errorf("kind %q of %q, not Cluster of kind.x-k8s.io/v1alpha4", cluster.Kind, cluster.APIVersion)
	}
	return cluster, nil
}
