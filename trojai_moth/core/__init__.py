"""Words that every other part uses: records, errors, seeds, devices, plugins, subjects, images and files."""
