/**
 * Legal moves between phases that need several rare things at once, with the reason. They are counted and printed, but a run
 * does not fail because one of them did not happen.
 */
export const SELDOM: Record<string, string> = {}
