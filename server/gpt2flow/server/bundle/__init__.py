"""The contract with export: what a bundle holds, and the only module that imports onnxruntime."""
