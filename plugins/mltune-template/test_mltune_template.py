"""The engine keeps every law of mltune's contract; a gap would be declared here, with its reason."""

from __future__ import annotations

from mltune_template import TemplateEngine

from mltune.testing import EngineContract


class TestTemplate(EngineContract):
    engine = "template"
    engine_class = TemplateEngine
