"""A Job like a finetune step's, by TorchX's Kubernetes scheduler, as a dry run: what it would submit, on stdout."""

from torchx.schedulers.kubernetes_scheduler import create_scheduler
from torchx.specs import AppDef, Resource, Role

role = Role(
    name="tuned",
    image="modelyard:latest-cuda",
    entrypoint="python",
    args=["-m", "modelyard_jobs", "finetune", "--order", "/etc/modelyard/order/order.json", "--yard", "/yard"],
    env={"HOME": "/home/modelyard"},
    resource=Resource(cpu=4, gpu=1, memMB=16384),
    max_retries=2,
)
print(create_scheduler("bench").submit_dryrun(AppDef(name="movie-sentiment", roles=[role]), {"queue": "default", "namespace": "default"}))
