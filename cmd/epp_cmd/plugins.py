"""The built-in scheduling: which plugins make up the default profile."""

from epp.requestcontrol.admission import Admission, AdmitAll, SaturationAdmission
from epp.saturation.detector import SaturationDetector, SaturationSettings
from epp.scheduling.filters.low_latency import LowLatencyFilter, LowLatencySettings
from epp.scheduling.framework import PluginObserver
from epp.scheduling.pickers.random_picker import RandomPicker
from epp.scheduling.profile import SchedulerProfile
from epp.scheduling.profilehandlers.single_profile_handler import SingleProfileHandler
from epp.scheduling.scheduler import Scheduler
from epp.server.options import Options

DEFAULT_PROFILE = "default"


def build_scheduler(options: Options, observe: PluginObserver) -> Scheduler:
    """The latency tree and a random picker."""
    settings = LowLatencySettings(
        low_queue_threshold=options.queuing_threshold_lora,
        lora_affinity_threshold=options.lora_affinity_threshold,
        queue_threshold=options.queue_threshold_critical,
        kv_cache_threshold=options.kv_cache_threshold,
        strict_v03=is_strict(options),
    )
    profile = SchedulerProfile(
        name=DEFAULT_PROFILE, filters=[LowLatencyFilter(settings)], picker=RandomPicker()
    )
    return Scheduler({DEFAULT_PROFILE: profile}, SingleProfileHandler(), observe)


def build_admission(options: Options) -> Admission:
    """Shedding by saturation; strict v0.3 sheds inside its tree."""
    if is_strict(options):
        return AdmitAll()
    limits = SaturationSettings(
        queue_depth=options.saturation_queue_depth,
        kv_usage=options.saturation_kv_cache_threshold,
        staleness_seconds=options.saturation_staleness_seconds,
    )
    return SaturationAdmission(SaturationDetector(limits))


def is_strict(options: Options) -> bool:
    """The rules of v0.3 to the letter."""
    return options.compatibility == "v0.3"
