module modelyard/tests/cluster/pause

go 1.24.0
