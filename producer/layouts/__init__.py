"""How the ground is cut into chips: one module a layout, and `layout_of`."""

from clay_publish.producer.layouts.base import Layout
from clay_publish.producer.layouts.scene_layout import SceneLayout
from clay_publish.producer.layouts.utm_layout import UtmLayout
from clay_publish.spec.models import Spec
from clay_publish.spec.sensors import Sensor


def layout_of(spec: Spec, instrument: Sensor) -> Layout:
    """The layout that a spec asks for, for images of a sensor."""
    if spec.chips.layout == "scene":
        return SceneLayout(spec.chips.size, instrument.gsd, spec.outputs.across)
    return UtmLayout(spec.chips.gsd or instrument.gsd, spec.chips.size, tuple(spec.imagery), spec.outputs.across)
