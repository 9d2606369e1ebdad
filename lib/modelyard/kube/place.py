"""Where on a cluster a run has its pods and its yard. None of it is part of what the run is, or of a key."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

Access = Literal["ReadWriteMany", "ReadWriteOnce"]
"""How the yard's volume may be mounted. ReadWriteOncePod cannot be a yard: the driver and its steps mount it at the same time."""


class Place(BaseModel):
    """The namespace and what pods in it need.

    claim: the yard. image: repository:version, without `-light` or `-cuda`. secret: name of the Secret with the hubs' tokens (keys `modelscope`
    and `huggingface`), which need not exist. queue: for steps that name none. driver_memory: of a run's driver.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    namespace: str
    image: str
    claim: str
    access: Access = "ReadWriteMany"
    secret: str = ""
    pull_secret: str = ""
    queue: str = ""
    driver_memory: str = "512Mi"
