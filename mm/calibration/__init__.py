"""Calibration of the confidence of trained models, and conformal prediction sets."""

from mm.calibration.calibrate import CalibrationReport, calibrate
from mm.calibration.conformal import conformal_quantile
from mm.calibration.platt import fit_platt
from mm.calibration.reliability import calibration_error, draw_reliability
from mm.calibration.temperature import fit_temperature

__all__ = [
    "CalibrationReport",
    "calibrate",
    "calibration_error",
    "conformal_quantile",
    "draw_reliability",
    "fit_platt",
    "fit_temperature",
]
