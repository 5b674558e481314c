"""`jxai prepare`, `train`, `evaluate`, `pictures`, `reproduce`: few-shot learning from data sets to tables."""
