"""The model hub: whether it can be reached and has a model, and in words why a model could not be fetched."""

from collections.abc import Iterator

from huggingface_hub import hf_hub_download, model_info
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

from disendiff_lite.support.errors import UserError, first_line


def is_on_reachable_hub(source: str) -> bool:
    """Whether the hub answers that it has the model; False if it does not answer but the model was downloaded before.

    Asking first costs one request and spares the half minute in which a download would try again and again. Raises
    UserError if the model is neither there nor here.
    """
    try:
        model_info(source, timeout=10)
        return True
    except Exception as error:
        try:
            hf_hub_download(source, "model_index.json", local_files_only=True)
            return False
        except Exception:
            raise UserError(why_not_fetched(source, source, error)) from error


def why_not_fetched(name: str, source: str, error: Exception) -> str:
    """One sentence for a model of the hub that could not be loaded.

    name: what was asked for. source: its id, owner/model.
    """
    causes = list(_causes(error))
    if any(isinstance(cause, GatedRepoError) for cause in causes):
        return (
            f"{name} is kept for those who accept its licence: accept it at https://huggingface.co/{source}, then log"
            " in with hf auth login."
        )
    if any(isinstance(cause, RepositoryNotFoundError) for cause in causes):
        return (
            f"The model hub has no {source}, or it is private: check how it is spelled, or log in with hf auth login."
        )
    return (
        f"Cannot fetch {name} from the model hub ({first_line(error)}): download it on a connected machine and give its"
        " folder, or use the model that is shipped, 'emoji'."
    )


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error and those from which it came: diffusers wraps those of the hub's client."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
