"""Engines: loaded models that answer prompts, behind one interface. They know no benchmark and no vector."""
