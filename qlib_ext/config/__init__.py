"""From YAML to checked objects: classes located, arguments held against their signatures, packages allowed."""
