"""Lenses of a production car with seven cameras: facts of upstream's shipped calibration.

RDS-HQ clips without `ftheta_intrinsic` have these, and so have synthetic scenes.
"""

_SIZE = (1920, 1080)

# cx, cy, width, height, c0 ... c5, 1 if from pixels to angle
DEFAULT_LENSES = {
    "camera_front_wide_120fov": (
        *(954.2063, 757.15415, *_SIZE, 0, 1.05758628e-3, 8.2116208e-9),
        *(-3.3945008e-11, 8.0734208e-14, -2.94602496e-17, 1),
    ),
    "camera_cross_left_120fov": (
        *(964.86275, 744.439, *_SIZE, 0, 1.0655136e-3, -6.3100036e-9),
        *(1.9566128e-11, 1.2580889e-14, 1.28343936e-18, 1),
    ),
    "camera_cross_right_120fov": (
        *(958.4103, 744.29785, *_SIZE, 0, 1.0670406e-3, -1.9016488e-9),
        *(5.0939608e-12, 3.09046848e-14, -6.74121728e-18, 1),
    ),
    "camera_rear_left_70fov": (
        *(933.82935, 557.2074, *_SIZE, 0, 1571.27855, 96.98752),
        *(-255.40837, 150.845965, 97.98543, 0),
    ),
    "camera_rear_right_70fov": (
        *(968.8991, 553.86615, *_SIZE, 0, 1564.0829, 100.93601),
        *(-264.07915, 149.67691, 100.501725, 0),
    ),
    "camera_rear_tele_30fov": (
        *(1032.4529, 514.0706, *_SIZE, 0, 3680.57665, -184.34178),
        *(2877.95335, -12169.1035, 16158.127, 0),
    ),
    "camera_front_tele_30fov": (
        *(978.44415, 597.66565, *_SIZE, 0, 3675.74975, 178.78496),
        *(-387.41287, -11.4377625, 18.0317115, 0),
    ),
}
