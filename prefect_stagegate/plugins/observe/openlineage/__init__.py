"""Lineage of datasets for other systems: runs of stage, validate, check and promote as OpenLineage events.

a job → `lineage_run.py` → `lineage_datasets.py`, by `dataset_names.py` → `openlineage_events.py` → a server or file
"""
