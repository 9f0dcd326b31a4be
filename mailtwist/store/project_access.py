"""Who may use a project: its owner, administrators, and keys of theirs that are for it."""

from __future__ import annotations

from mailtwist.mail.permissions import Viewer
from mailtwist.mail.scopes import has_all
from mailtwist.store import identities, projects
from mailtwist.store.engine import Connection
from mailtwist.store.projects import Project


def belongs_to(connection: Connection, project: Project, user_id: int) -> bool:
    """Tell whether a user may use a project: it is his, or he is an administrator."""
    if not user_id:
        return False
    if project.owner_user_id == user_id:
        return True
    user = identities.user_of_number(connection, user_id)
    return user is not None and user.is_admin


def usable(connection: Connection, viewer: Viewer, name: str = "") -> Project | None:
    """The project of this name or id, if the viewer may use it; "": the one his key is for.

    None as well when there is no such project, so that nobody learns of those of others. What a
    key was made for counts only as long as its owner may use the project himself.
    """
    if viewer.project:
        return _of_key(connection, viewer, name)
    project = projects.find(connection, name) if name and has_all(viewer.scopes) else None
    if project is None or not (viewer.is_admin or viewer.owns(project.owner_user_id)):
        return None
    return project


def _of_key(connection: Connection, viewer: Viewer, name: str) -> Project | None:
    project = projects.find(connection, viewer.project)
    if project is None or name.strip().lower() not in {"", project.name, project.reference_id}:
        return None
    return project if belongs_to(connection, project, viewer.user_id) else None
