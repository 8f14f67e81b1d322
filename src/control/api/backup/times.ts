/** UTC with microseconds and without a zone: a suffix breaks two clients. */
export const naiveTime = (ms: number): string => `${new Date(ms).toISOString().replace('Z', '')}000`

export const naiveOrNull = (ms: number | null): string | null =>
  ms === null ? null : naiveTime(ms)

/** With a blank, whole seconds, as triggers have it. */
export const blankTime = (ms: number): string =>
  new Date(ms).toISOString().slice(0, 19).replace('T', ' ')

export const dayOf = (ms: number): string => new Date(ms).toISOString().slice(0, 10)

/** ms since 1970 of a naive UTC time; null: not one. `separator`: what stands between day and time. */
export function parseNaive(text: string, separator: 'T' | ' '): number | null {
  const form =
    separator === 'T'
      ? /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?$/
      : /^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d$/
  if (!form.test(text)) return null
  const ms = Date.parse(`${text.replace(' ', 'T')}Z`)
  return Number.isNaN(ms) ? null : ms
}
