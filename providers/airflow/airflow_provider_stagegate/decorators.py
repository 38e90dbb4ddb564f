"""`@task.require_ready("nycflights@production")`: call a function only with a version that is ready, and hold it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import DecoratedOperator, task_decorator_factory
from airflow.providers.standard.operators.python import PythonOperator

from airflow_provider_stagegate.holding import hold_ready
from airflow_provider_stagegate.hook import StagegateHook
from airflow_provider_stagegate.links import VersionLink, addresses_of

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import TaskDecorator
    from airflow.sdk import Context


class RequireReadyDecoratedOperator(DecoratedOperator, PythonOperator):
    """Calls a function with the folder of a version, and keeps the version on the node until it returns.

    Args:
        version: `nycflights@production`, or `nycflights@sha256:…`.
        digest: The digest that `version` has to name when the task runs; None for any.
        stagegate_conn_id: The connection's id.
    """

    template_fields: Sequence[str] = ("version", "digest", "stagegate_conn_id", *PythonOperator.template_fields)
    custom_operator_name = "@task.require_ready"
    ui_color = "#e6f2ea"
    # No report: no gate is asked.
    operator_extra_links = (VersionLink(),)

    def __init__(
        self,
        *,
        version: str,
        digest: str | None = None,
        stagegate_conn_id: str = StagegateHook.default_conn_name,
        python_callable: Callable[..., Any],
        op_args: Collection[Any] = (),
        op_kwargs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        # Airflow binds the arguments when the DAG is read, and the values are known when the task runs.
        arguments = {**dict.fromkeys(_handed(python_callable)), **(op_kwargs or {})}
        super().__init__(
            kwargs_to_upstream={"python_callable": python_callable, "op_args": op_args, "op_kwargs": arguments},
            python_callable=python_callable,
            op_args=op_args,
            op_kwargs=arguments,
            **kwargs,
        )
        self.version = version
        self.digest = digest
        self.stagegate_conn_id = stagegate_conn_id

    def execute(self, context: Context) -> Any:
        """Require the version, and call the function while it is held."""
        hook = StagegateHook(self.stagegate_conn_id)
        with hold_ready(hook, self.version, self.log.info, self.digest) as held:
            document = {"dataset": held.version.partition("@")[0], "digest": held.digest}
            self.addresses = addresses_of(document, hook.get_command().environment)
            values = {name: getattr(held, name) for name in _handed(self.python_callable)}
            self.op_kwargs = {**self.op_kwargs, **values}
            return super().execute(context)


def _handed(function: Callable[..., Any]) -> list[str]:
    """The parameters of a function that it gets from the operator."""
    return [name for name in ("path", "digest") if name in inspect.signature(function).parameters]


def require_ready_task(
    version: str | None = None,
    /,
    python_callable: Callable[..., Any] | None = None,
    multiple_outputs: bool | None = None,
    **kwargs: Any,
) -> TaskDecorator:
    """Let a function run only with a version that is ready on its node, and hold the version while it runs.

    A node that lacks the version fetches it first. The function gets the version's folder as `path`, a `pathlib.Path`,
    and its `digest`, where it has parameters of these names.

        @task.require_ready("nycflights@production")
        def train(path, digest): ...

    Args:
        version: `nycflights@production`, or `nycflights@sha256:…`; may be a template.
        python_callable: The function.
        multiple_outputs: Whether a dictionary that it returns becomes several XComs.
        kwargs: Arguments of the operator, such as `stagegate_conn_id` and `retries`. With `digest` (may be a template)
            the task fails, without a retry, when `version` names another version by then.

    Raises:
        TypeError: No version is named.
    """
    version = kwargs.pop("version", version)
    if not isinstance(version, str):
        raise TypeError('Name the version that has to be ready: @task.require_ready("nycflights@production")')
    return task_decorator_factory(
        python_callable=python_callable,
        multiple_outputs=multiple_outputs,
        decorated_operator_class=RequireReadyDecoratedOperator,
        version=version,
        **kwargs,
    )
