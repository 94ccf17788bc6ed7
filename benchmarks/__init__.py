"""The neck laboratory: cost, speed, memory and accuracy of necks under one roof."""
