"""`make demo`: the demo app under the entrypoint, with a private Postgres and the files in migrations/."""

import os
import shutil
import socket
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent


def main() -> None:
    """Say what to try, then become the entrypoint."""
    port = os.environ.get("PORT", "8000")
    # Short, since the path of a unix socket may have 107 bytes; one place, since a cluster takes 40 MB.
    state_dir = Path(tempfile.gettempdir()) / f"entrypoint-demo-{os.geteuid()}"
    if answers(state_dir / "entrypoint.sock"):
        sys.exit("demo: it runs already, in another terminal; stop it there with Ctrl-C")
    shutil.rmtree(state_dir, ignore_errors=True)
    os.environ.update(
        DATABASE_URL="embedded",
        ENTRYPOINT_STATE_DIR=str(state_dir),
        MIGRATIONS_DIR=str(HERE.parent / "migrations"),
        NODE_ENV="production",
        PORT=port,
        SERVICE_NAME="demo",
    )
    print(f"""
  The app:         http://127.0.0.1:{port}
  Its migrations:  curl --unix-socket {state_dir}/entrypoint.sock http://localhost/api/health
  To stop:         Ctrl-C
""")
    sys.stdout.flush()
    command = [sys.executable, "-m", "entrypoint", "--", sys.executable, str(HERE / "app.py")]
    os.execv(sys.executable, command)


def answers(path: Path) -> bool:
    """Whether an entrypoint listens there."""
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True


if __name__ == "__main__":
    main()
