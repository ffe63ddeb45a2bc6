"""The HTTP application: health for load balancers, and a JSON API over the index for holders of a bearer token."""

from typing import Annotated, Any

from fastapi import Depends, FastAPI, HTTPException, Query
from fastapi.responses import HTMLResponse, Response
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from node.health import HealthProbe
from node.settings import Settings
from node.studies import list_studies, node_status, show_study
from node.web.metrics import CONTENT_TYPE, Scrape
from storage.database import Database
from storage.revisions import UnknownStudy
from storage.tokens import TokenIdentity, authenticate

FRONT_PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>pacsgate</title>
<body style="font: 16px sans-serif; max-width: 40em; margin: 4em auto; background: #111; color: #ddd">
<h1>pacsgate</h1><p>This node is running. <strong>Research use only, not for diagnosis.</strong></p>
<p>The console is not part of this version. Studies, verdicts and results are at <code>/api/v1/studies</code> for
holders of a token (<code>pacsgate token create NAME --role viewer</code>), and on the command line
(<code>pacsgate studies list</code>).</p></body></html>"""


def create_app(settings: Settings) -> FastAPI:
    """Build the application over the index named in the settings."""
    database = Database(settings.database_url)
    app = FastAPI(title="pacsgate", version="1", docs_url=None, redoc_url=None)
    probe = HealthProbe(settings, database)
    scrape = Scrape(settings, database, probe)
    bearer = HTTPBearer(auto_error=False)

    def identity(
        credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)],
    ) -> TokenIdentity:
        known = authenticate(database, credentials.credentials) if credentials else None
        if known is None:
            raise HTTPException(401, "a valid bearer token is needed", headers={"WWW-Authenticate": "Bearer"})
        return known

    authenticated = [Depends(identity)]

    @app.get("/", response_class=HTMLResponse)
    def front_page() -> str:
        return FRONT_PAGE

    @app.get("/healthz")
    def healthz() -> dict[str, str]:
        """The process answers."""
        return {"status": "ok"}

    @app.get("/readyz")
    def readyz(response: Response) -> dict[str, Any]:
        """This host can serve; 503 where something it needs is down."""
        health = probe.look()
        response.status_code = 200 if health.ready else 503
        return health.terse()

    @app.get("/metrics")
    def metrics() -> Response:
        """Counts, times and gauges for Prometheus; no identities."""
        return Response(scrape.text(), media_type=CONTENT_TYPE)

    @app.get("/api/v1/health", dependencies=authenticated)
    def health() -> dict[str, Any]:
        return probe.look().full()

    @app.get("/api/v1/status", dependencies=authenticated)
    def status() -> dict[str, Any]:
        return node_status(database)

    @app.get("/api/v1/studies", dependencies=authenticated)
    def studies(limit: Annotated[int, Query(ge=1, le=1000)] = 50) -> list[dict[str, Any]]:
        return list_studies(database, limit)

    @app.get("/api/v1/studies/{study_instance_uid}", dependencies=authenticated)
    def study(study_instance_uid: str) -> dict[str, Any]:
        try:
            return show_study(database, study_instance_uid)
        except UnknownStudy as error:
            raise HTTPException(404, "no such study") from error

    return app
