"""How the ground is cut into chips: one module a layout, and `layout_of`."""

from clay_publish.geo.utm_grid import SUPERBLOCK
from clay_publish.producer.imagery.composite import reducer, superblock_side
from clay_publish.producer.layouts.base import Layout
from clay_publish.producer.layouts.scene_layout import SceneLayout
from clay_publish.producer.layouts.utm_layout import UtmLayout
from clay_publish.spec.models import Spec
from clay_publish.spec.sensors import Sensor


def layout_of(spec: Spec, instrument: Sensor) -> Layout:
    """The layout that a spec asks for, for images of a sensor.

    Raises:
        SpecError: the reduction of its composite is not registered.
    """
    if spec.chips.layout == "scene":
        return SceneLayout(spec.chips.size, instrument.gsd, spec.outputs.across)
    size, composite, steps = spec.chips.size, spec.imagery[0].composite, spec.model.steps
    if composite is not None and composite.method != "best":
        reducer(composite)
    return UtmLayout(
        gsd=spec.chips.gsd or instrument.gsd,
        size=size,
        blocks=tuple(spec.imagery),
        across=spec.outputs.across,
        superblock=superblock_side(SUPERBLOCK, size, len(instrument.bands), composite, steps),
    )
