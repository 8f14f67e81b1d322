/** JSON text of a column. `undefined` members vanish as in JSON itself. */
export const toJson = (value: unknown): string => JSON.stringify(value ?? null)

/** What `toJson` stored. The caller names the type it stored: nothing is checked, the database is our own. */
export const fromJson = <T>(text: string): T => JSON.parse(text) as T
