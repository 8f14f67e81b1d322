import type { ServerDefinition, ServerDisk } from '#wire/site/servers.ts'
import type { DiskStanding, DiskStandings } from './driver.ts'

/* What the standings of its disks, and the memory that others leave, mean for a guest. Pure. */

/** Why a guest that has these volumes must not go on; undefined: it may. A disk that waits is no reason. */
export function whyStop(volumes: readonly string[], disks: DiskStandings): string | undefined {
  for (const volume of volumes) {
    const standing = disks.of(volume)
    if (standing.kind === 'denied' || standing.kind === 'unknown') {
      return `disk ${volume} may not be used here any more: ${wordsOf(standing)}`
    }
  }
  return undefined
}

export interface StartProblem {
  readonly text: string
  /** Waiting would not help. */
  readonly lasting: boolean
}

/** Why a guest with these disks cannot be started now; a lasting reason before one that passes. */
export function whyNotStart(
  wanted: readonly ServerDisk[],
  disks: DiskStandings,
): StartProblem | undefined {
  const problems = wanted.flatMap(({ volume }) => notServed(volume, disks) ?? [])
  return problems.find(({ lasting }) => lasting) ?? problems[0]
}

/** Why a volume cannot be given to a guest now. */
export function notServed(volume: string, disks: DiskStandings): StartProblem | undefined {
  const standing = disks.of(volume)
  if (standing.kind === 'served') return undefined
  const text = `disk ${volume} is not served here: ${wordsOf(standing)}`
  return { text, lasting: standing.kind !== 'waiting' }
}

/** `freeMb`: MiB that other guests leave; below zero where they have more than the site gives. */
export function whyNoMemory(
  { memory_mb }: Pick<ServerDefinition, 'memory_mb'>,
  freeMb: number,
): string | undefined {
  return memory_mb <= freeMb
    ? undefined
    : `it needs ${memory_mb} MiB of memory and ${Math.max(0, freeMb)} MiB are left at this site`
}

const wordsOf = (standing: DiskStanding): string =>
  'reason' in standing ? standing.reason : 'this site does not know it'
