"""Upload of an export to the Hugging Face Hub, private by default.

`huggingface_hub` uploads. The files are listed first, so a dry run needs no connection.
`huggingface_hub` also reads the token itself, from its environment variable or login; it never
passes through this code and is never printed.

Limitations: files in the repository that the export lacks are not deleted.
"""

from __future__ import annotations

import re
from pathlib import Path

from molmo_tune.errors import UserError


def files_to_push(folder: Path) -> list[tuple[str, int]]:
    """Return the relative paths and sizes in bytes of the files to upload, in order.

    Raises:
        UserError: the folder is missing, or has no weights.
    """
    if not folder.is_dir():
        raise UserError(folder, "no such folder", "an export", "molmo-tune export RUN --out FOLDER")
    found = [
        (str(file.relative_to(folder)), file.stat().st_size)
        for file in sorted(folder.rglob("*"))
        if file.is_file() and not file.name.startswith(".")
    ]
    if not any(name.endswith((".safetensors", ".pt")) for name, _ in found):
        raise UserError(folder, "contains no weights", "an export", "molmo-tune export RUN --out …")
    return found


def push(folder: Path, repository: str, *, public: bool = False) -> str:
    """Upload all of `files_to_push` in one commit; return the URL of the commit.

    Args:
        folder: an export.
        repository: ``owner/name``; created if it does not exist.
        public: whether a new repository is public.

    Raises:
        UserError: the name is invalid, or there is no token, permission or connection.
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
        fix = "log in with a token that has write access" if status in (401, 403) else ""
        raise UserError(repository, f"the Hub answered {status}", fix=fix) from error
    except (OSError, ValueError) as error:
        found = f"the Hub could not be reached ({type(error).__name__})"
        raise UserError(repository, found, fix="check the connection") from error
    return str(commit.commit_url)


def require_repository_name(repository: str) -> None:
    """Check that the name is ``owner/name``.

    Raises:
        UserError: it is not.
    """
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repository):
        raise UserError("push", f"{repository!r} is not a repository name", "OWNER/NAME")
