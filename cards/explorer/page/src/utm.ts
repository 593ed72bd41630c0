/** Transverse Mercator on WGS 84 in plain UTM zones; Krüger's series to the sixth order: C. F. F. Karney, 2011. */

const A = 6378137;
const F = 1 / 298.257223563;
const N = F / (2 - F);
const K0 = 0.9996;
const FALSE_EASTING = 500000;
const E2 = F * (2 - F);
const E1 = Math.sqrt(E2);
const RADIUS = (A / (1 + N)) * (1 + N ** 2 / 4 + N ** 4 / 64 + N ** 6 / 256);

const ALPHA = [
  N / 2 - (2 * N ** 2) / 3 + (5 * N ** 3) / 16 + (41 * N ** 4) / 180 - (127 * N ** 5) / 288 + (7891 * N ** 6) / 37800,
  (13 * N ** 2) / 48 - (3 * N ** 3) / 5 + (557 * N ** 4) / 1440 + (281 * N ** 5) / 630 - (1983433 * N ** 6) / 1935360,
  (61 * N ** 3) / 240 - (103 * N ** 4) / 140 + (15061 * N ** 5) / 26880 + (167603 * N ** 6) / 181440,
  (49561 * N ** 4) / 161280 - (179 * N ** 5) / 168 + (6601661 * N ** 6) / 7257600,
  (34729 * N ** 5) / 80640 - (3418889 * N ** 6) / 1995840,
  (212378941 * N ** 6) / 319334400,
];
const BETA = [
  N / 2 - (2 * N ** 2) / 3 + (37 * N ** 3) / 96 - N ** 4 / 360 - (81 * N ** 5) / 512 + (96199 * N ** 6) / 604800,
  N ** 2 / 48 + N ** 3 / 15 - (437 * N ** 4) / 1440 + (46 * N ** 5) / 105 - (1118711 * N ** 6) / 3870720,
  (17 * N ** 3) / 480 - (37 * N ** 4) / 840 - (209 * N ** 5) / 4480 + (5569 * N ** 6) / 90720,
  (4397 * N ** 4) / 161280 - (11 * N ** 5) / 504 - (830251 * N ** 6) / 7257600,
  (4583 * N ** 5) / 161280 - (108847 * N ** 6) / 3991680,
  (20648693 * N ** 6) / 638668800,
];

const DEGREE = Math.PI / 180;

export interface Metres {
  easting: number;
  /** Counted from the equator, negative in the south. */
  northing: number;
}

/** The plain zone, 1 to 60, of a longitude in degrees. */
export function zoneOf(lon: number): number {
  return Math.min(59, Math.floor(mod(lon + 180, 360) / 6)) + 1;
}

export function mod(value: number, by: number): number {
  return ((value % by) + by) % by;
}

/** Project a place into a zone. */
export function toUtm(zone: number, lon: number, lat: number): Metres {
  const away = (mod(lon - central(zone) + 180, 360) - 180) * DEGREE;
  const sin = Math.sin(lat * DEGREE);
  const t = Math.sinh(Math.atanh(sin) - E1 * Math.atanh(E1 * sin));
  const xi = Math.atan2(t, Math.cos(away));
  const eta = Math.asinh(Math.sin(away) / Math.hypot(t, Math.cos(away)));
  let x = eta;
  let y = xi;
  ALPHA.forEach((alpha, index) => {
    const order = 2 * (index + 1);
    x += alpha * Math.cos(order * xi) * Math.sinh(order * eta);
    y += alpha * Math.sin(order * xi) * Math.cosh(order * eta);
  });
  return { easting: FALSE_EASTING + K0 * RADIUS * x, northing: K0 * RADIUS * y };
}

/** Longitude and latitude of a place in a zone; the longitude is near the zone, so it may lie beyond ±180. */
export function fromUtm(zone: number, easting: number, northing: number): [number, number] {
  const xi = northing / (K0 * RADIUS);
  const eta = (easting - FALSE_EASTING) / (K0 * RADIUS);
  let x = eta;
  let y = xi;
  BETA.forEach((beta, index) => {
    const order = 2 * (index + 1);
    x -= beta * Math.cos(order * xi) * Math.sinh(order * eta);
    y -= beta * Math.sin(order * xi) * Math.cosh(order * eta);
  });
  const conformal = Math.sin(y) / Math.hypot(Math.sinh(x), Math.cos(y));
  let t = conformal;
  for (let step = 0; step < 6; step += 1) {
    const sigma = Math.sinh(E1 * Math.atanh((E1 * t) / Math.hypot(1, t)));
    const guess = t * Math.hypot(1, sigma) - sigma * Math.hypot(1, t);
    t += ((conformal - guess) / Math.hypot(1, guess)) * ((1 + (1 - E2) * t * t) / ((1 - E2) * Math.hypot(1, t)));
  }
  return [central(zone) + Math.atan2(Math.sinh(x), Math.cos(y)) / DEGREE, Math.atan(t) / DEGREE];
}

function central(zone: number): number {
  return 6 * zone - 183;
}
