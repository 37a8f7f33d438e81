"""An export → a repository on the Hugging Face hub, private unless asked otherwise.

`huggingface_hub` does the upload. Before it, what would go is listed, so that a dry run shows all
there is to know without a connection. The token is read by `huggingface_hub` itself, from its
environment variable or its login; it never passes through here and is printed nowhere.

What it does not do: delete files of the repository that the export has not.
"""

from __future__ import annotations

import re
from pathlib import Path

from molmo_tune.errors import UserError


def files_to_push(folder: Path) -> list[tuple[str, int]]:
    """Relative paths and sizes in bytes of what would be uploaded, in order.

    Raises:
        UserError: no such folder, or no weights in it.
    """
    if not folder.is_dir():
        raise UserError(folder, "no such folder", "an export", "molmo-tune export RUN --out FOLDER")
    found = [
        (str(file.relative_to(folder)), file.stat().st_size)
        for file in sorted(folder.rglob("*"))
        if file.is_file() and not file.name.startswith(".")
    ]
    if not any(name.endswith((".safetensors", ".pt")) for name, _ in found):
        raise UserError(folder, "holds no weights", "an export", "molmo-tune export RUN --out …")
    return found


def push(folder: Path, repository: str, *, public: bool = False) -> str:
    """Upload all of `files_to_push` in one commit; returns the commit's address.

    Args:
        folder: an export.
        repository: ``owner/name``; made when it does not exist.
        public: whether a new repository can be seen by everybody.

    Raises:
        UserError: a bad name, no token, no rights or no connection.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError

    require_repository_name(repository)
    names = [name for name, _ in files_to_push(folder)]
    api = HfApi()
    try:
        api.create_repo(repository, private=not public, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repository,
            folder_path=folder,
            allow_patterns=names,
            commit_message="Upload by molmo-tune",
        )
    except LocalTokenNotFoundError as error:
        raise UserError(repository, "no token", "a login", "run `hf auth login`") from error
    except HfHubHTTPError as error:
        status = error.response.status_code
        fix = "log in with a token that may write there" if status in (401, 403) else ""
        raise UserError(repository, f"the hub answered {status}", fix=fix) from error
    except (OSError, ValueError) as error:
        raise UserError(repository, f"the hub was not reached ({type(error).__name__})") from error
    return str(commit.commit_url)


def require_repository_name(repository: str) -> None:
    """Check that the name is ``owner/name``.

    Raises:
        UserError: it is not.
    """
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repository):
        raise UserError("push", f"{repository!r} is no repository", "owner/name")
