//! Distance on a sphere.

use api::Place;

/// The mean radius of the Earth in kilometres (IUGG).
pub const EARTH_RADIUS_KM: f64 = 6371.0088;

/// The great-circle distance between two places in kilometres, by the haversine formula: exact also for places close to
/// each other, across the antimeridian and at the poles. Off by at most 0.5 %, because the Earth is no sphere.
pub fn haversine_km(a: Place, b: Place) -> f64 {
    let half_lat = (b.lat - a.lat).to_radians() / 2.0;
    let half_lng = (b.lng - a.lng).to_radians() / 2.0;
    let h = half_lat.sin().powi(2) + a.lat.to_radians().cos() * b.lat.to_radians().cos() * half_lng.sin().powi(2);
    // Rounding can carry h a little beyond 1 for places opposite each other, of which there is no arc sine.
    2.0 * EARTH_RADIUS_KM * h.clamp(0.0, 1.0).sqrt().asin()
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUARTER_KM: f64 = EARTH_RADIUS_KM * std::f64::consts::FRAC_PI_2;

    fn check(a: (f64, f64), b: (f64, f64), expected_km: f64) {
        let [a, b] = [a, b].map(|(lat, lng)| Place::new(lat, lng).expect("place"));
        for km in [haversine_km(a, b), haversine_km(b, a)] {
            assert!((km - expected_km).abs() <= 0.001 * expected_km + 1e-6, "{a} to {b}: {km} is not {expected_km}");
        }
    }

    #[test]
    fn known_distances() {
        check((0.0, 0.0), (0.0, 0.0), 0.0);
        check((48.8566, 2.3522), (51.5074, -0.1278), 343.6); // Paris to London
        check((36.12, -86.67), (33.94, -118.40), 2886.4); // Nashville to Los Angeles
        check((0.0, 0.0), (0.0, 90.0), QUARTER_KM);
        // Across the antimeridian, and the same place written in two ways.
        check((0.0, 179.5), (0.0, -179.5), 111.195);
        check((10.0, 180.0), (10.0, -180.0), 0.0);
        // At a pole the longitude says nothing.
        check((90.0, 0.0), (90.0, 123.0), 0.0);
        check((90.0, 17.0), (0.0, -99.0), QUARTER_KM);
        check((90.0, 0.0), (-90.0, 50.0), 2.0 * QUARTER_KM);
        check((12.3, 45.6), (-12.3, -134.4), 2.0 * QUARTER_KM);
        // A metre or so.
        check((50.0, 10.0), (50.00001, 10.0), 0.001_112);
    }

    proptest::proptest! {
        #[test]
        fn always_a_number_within_half_a_round(
            lat in -90.0..=90.0_f64, lng in -180.0..=180.0_f64, lat2 in -90.0..=90.0_f64, lng2 in -180.0..=180.0_f64,
        ) {
            let km = haversine_km(Place { lat, lng }, Place { lat: lat2, lng: lng2 });
            proptest::prop_assert!((0.0..=2.0 * QUARTER_KM + 1e-6).contains(&km), "{}", km);
        }
    }
}
