"""The cameras of multiview driving models, in the order of their ids."""

CAMERAS = {  # view to camera; the place in this table is the view's id
    "front_wide": "camera_front_wide_120fov",
    "cross_right": "camera_cross_right_120fov",
    "rear_right": "camera_rear_right_70fov",
    "rear": "camera_rear_tele_30fov",
    "rear_left": "camera_rear_left_70fov",
    "cross_left": "camera_cross_left_120fov",
    "front_tele": "camera_front_tele_30fov",
}
VIEWS = tuple(CAMERAS)
IDS = {view: number for number, view in enumerate(VIEWS)}
