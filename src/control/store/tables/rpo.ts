/** What is remembered about recovery points. */
export interface RpoTables {
  rpo_points: RpoPointRow
}

/** How many pairs of a project were behind in one stretch of time. No row: nobody looked, or there was nothing to look at. */
export interface RpoPointRow {
  /** UUID. */
  id: string
  project: string
  /** Beginning of the stretch, wall clock in ms; one row for each. */
  point_at: number
  /** Most pairs at any look in it whose DR side was not known to hold everything. */
  behind: number
  created_at: number
  /** Of the look that raised `behind`. */
  updated_at: number
}
