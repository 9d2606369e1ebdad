"""The steps of modelyard, as processes: `python -m modelyard_jobs STEP --order FILE --yard FOLDER`."""
