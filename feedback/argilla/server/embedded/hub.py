"""Stands in for argilla_server.jobs.hub_jobs: nothing goes to or comes from the Hugging Face Hub.

The server is offline, so these jobs could only fail; what they load (datasets, pandas, pyarrow) takes 100 MB of memory.
"""

from typing import Any, NoReturn


class _Refused:
    def delay(self, **_: Any) -> NoReturn:
        from argilla_server.errors.future import UnprocessableEntityError

        raise UnprocessableEntityError(
            "This server exchanges nothing with the Hugging Face Hub: "
            "use `veritune feedback import` and `veritune data export`"
        )


import_dataset_from_hub_job = export_dataset_to_hub_job = _Refused()
