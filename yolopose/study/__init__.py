"""Study definitions as data: variants, experiments, profiles, keypoint schemas."""
