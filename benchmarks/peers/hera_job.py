"""A workflow of the quickstart's shape with a step like finetune's, by Hera, as YAML on stdout."""

from hera.workflows import DAG, Container, Resources, Workflow

VERBS = {"fetch": "light", "finetune": "cuda", "evaluate": "cuda", "export": "cuda", "infer": "cuda", "publish": "light"}

with Workflow(name="movie-sentiment", entrypoint="steps") as workflow:
    containers = [
        Container(
            name=verb,
            image=f"modelyard:latest-{target}",
            command=["python", "-m", "modelyard_jobs", verb],
            args=["--order", "/etc/modelyard/order/order.json", "--yard", "/yard"],
            resources=Resources(cpu_request=4, memory_request="16Gi", memory_limit="16Gi", gpus=1 if target == "cuda" else 0),
        )
        for verb, target in VERBS.items()
    ]
    with DAG(name="steps"):
        before = None
        for container in containers:
            task = container()
            if before:
                before >> task
            before = task
print(workflow.to_yaml())
