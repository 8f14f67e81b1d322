/** How often each thing that can happen did happen; the report of a run and its demand that nothing was missed. */
export class Coverage {
  readonly counts = new Map<string, number>()

  /** @param what `group name`, e.g. `fault power-loss`. The report is sorted by it. */
  count(what: string, by = 1): void {
    this.counts.set(what, (this.counts.get(what) ?? 0) + by)
  }

  add(other: Coverage): void {
    for (const [what, count] of other.counts) this.count(what, count)
  }

  /** Those of `wanted` that never happened. */
  missing(wanted: readonly string[]): string[] {
    return wanted.filter((what) => (this.counts.get(what) ?? 0) === 0)
  }

  table(wanted: readonly string[]): string {
    const names = [...new Set([...this.counts.keys(), ...wanted])].sort()
    const width = Math.max(...names.map((name) => name.length))
    return names
      .map((name) => `${name.padEnd(width)}  ${String(this.counts.get(name) ?? 0).padStart(9)}`)
      .join('\n')
  }
}
