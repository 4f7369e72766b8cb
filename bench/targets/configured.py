"""What a scenario says of the application and of each configuration's policies: the same for every target."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.load.generator import LoadOrder
from bench.meshes import MESHES, Policies
from bench.meshes.application import NAMESPACE, Application, read_application
from bench.scenario import Configuration, Load, Scenario
from bench.shipped import shipped
from bench.targets.readers import Reader, readers_of


def application_folder(scenario: Scenario) -> Path:
    """The manifests of the application that a scenario deploys."""
    return shipped("manifests") / scenario.application.name


def application_of(scenario: Scenario, *, namespace: str = NAMESPACE) -> Application:
    """The application that a scenario deploys."""
    return read_application(application_folder(scenario), scenario.application.reviews, namespace=namespace)


def entered(settings: Configuration, application: Application, manifests: Mapping[str, Path]) -> Application:
    """The application as a configuration's load enters it: through the gateway, if the configuration's manifests have
    one. Raises InputError."""
    if settings.mesh == "none":
        return application
    gateway = MESHES[settings.mesh].read_gateway([manifests[place] for place in settings.manifests], application)
    return application.entered_by(gateway) if gateway else application


def readers_in(settings: Configuration, application: Application, manifests: Mapping[str, Path]) -> tuple[Reader, ...]:
    """Who asks for pages in a configuration, and which version of reviews each has to see. Raises InputError."""
    return readers_of(MESHES.get(settings.mesh), policies_of(settings, application, manifests), application)


def policies_of(settings: Configuration, application: Application, manifests: Mapping[str, Path]) -> Policies | None:
    """A configuration's policies, from the folders of `manifests` that it names; None without a mesh. Raises
    InputError."""
    if settings.mesh == "none":
        return None
    application = entered(settings, application, manifests)
    return MESHES[settings.mesh].read_policies([manifests[place] for place in settings.manifests], application)


def load_order(
    load: Load, readers: Sequence[Reader], *, address: str, virtual_host: str, locustfile: Path, seed: int
) -> LoadOrder:
    """What the generator is told: the load of a configuration, for its readers, at `host:port`."""
    return LoadOrder(
        address=address,
        virtual_host=virtual_host,
        locustfile=locustfile,
        reviews=readers[0].reviews,
        logged_in={reader.user: reader.reviews for reader in readers if reader.user},
        users=load.users,
        think_time_s=load.think_time_s,
        rate_per_s=load.rate_per_s,
        warmup_s=load.warmup_s,
        duration_s=load.duration_s,
        seed=seed,
        workers=load.workers,
    )
