"""A call that needs two models and four attempts, in virtual time."""

from resilience import ModelFallback, Pipeline, Retry, Timeout
from resilience.testing import virtual_time


class ServiceError(Exception):
    def __init__(self, status_code: int) -> None:
        super().__init__(status_code)
        self.status_code = status_code


robust = Pipeline(ModelFallback("gpt-4o", "claude-sonnet-4-6"), Retry(attempts=2), Timeout(2))
answers = iter([(0.21, 500), (0.34, 500), (60, 200), (1.42, 200)])

with virtual_time() as clock:

    def ask(question: str, *, model: str = "gpt-4o") -> str:
        seconds, status = next(answers)
        clock.sleep(seconds)
        if status != 200:
            raise ServiceError(status)
        return "Hello!"

    outcome = robust.outcome(ask, "Who are you?")

print(outcome.timeline())
