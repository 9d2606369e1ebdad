"""Running pipelines: the driver, and how a step is executed here or on a cluster.

settings   what a run is told beside its pipeline      pipeline   the driver
start      runs of this machine                        remote     runs on a cluster
local      steps as processes                          kubernetes steps as Jobs
submit     the Python way in                           driver     what a driver's pod executes
"""
