"""The Open Inference Protocol (V2) without a transport: its tensors, its models, and one way to ask them.

A transport reads tensors with `tensors.from_raw` and `tensors.from_list`, finds the model with `models.find_model`, and
awaits `infer.infer`; the answer's tensors become bytes with `tensors.to_raw`, or lists with `tensors.to_list`.
"""
