"""A local server that gives each model's answers as they are written down, byte by byte."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from attrs import Factory, frozen

__all__ = ["ANSWER", "Answer", "Answers"]


@frozen
class Answer:
    """A status, a body (a text is sent as it is, all else as JSON), and headers."""

    body: Any
    status: int = 200
    headers: dict[str, str] = Factory(dict)


ANSWER = Answer(
    {
        "id": "x",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [
            {
                "index": 0,
                "finish_reason": "stop",
                "message": {"role": "assistant", "content": "Hello."},
            }
        ],
    }
)


class Answers(ThreadingHTTPServer):
    """Listens while it is entered. The nth request for a model gets its nth answer; the last one is
    repeated. `models` has the model of every request."""

    daemon_threads = True

    def __init__(self, **plan: list[Answer]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.plan = plan
        self.models: list[str] = []
        self.base_url = f"http://127.0.0.1:{self.server_port}/v1"

    def next_answer(self, model: str) -> Answer:
        answers = self.plan[model]
        self.models.append(model)
        return answers[min(self.models.count(model), len(answers)) - 1]

    def __enter__(self) -> Answers:
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *args: object) -> None:
        self.shutdown()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Answers

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        answer = self.server.next_answer(asked["model"])
        body = answer.body if isinstance(answer.body, str) else json.dumps(answer.body)
        self.send_response(answer.status)
        sent = {"content-type": "application/json", **answer.headers}
        for name, value in {**sent, "content-length": str(len(body.encode()))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *args: Any) -> None:
        """Says nothing."""
