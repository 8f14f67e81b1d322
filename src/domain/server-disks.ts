/** Names of disks in a server, `/dev/vda` to `/dev/vdz`. Nothing is ever lettered anew: a name that is gone stays free until it is asked for. */
export const ROOT_DEVICE = '/dev/vda'

/** As clients write it: `/dev/vdb`, `/dev/sdb`, `/dev/xvdb`, `vdb`, `sdb`. Null: not the name of a disk. */
export function normaliseDevice(text: string): string | null {
  const [, letter] = /^(?:\/dev\/)?(?:v|s|xv)d([a-z])$/.exec(text) ?? []
  return letter === undefined ? null : `/dev/vd${letter}`
}

/** The first free name after the root disk's; null: all are taken. */
export function nextDevice(taken: ReadonlySet<string>): string | null {
  for (let code = 'b'.charCodeAt(0); code <= 'z'.charCodeAt(0); code++) {
    const device = `/dev/vd${String.fromCharCode(code)}`
    if (!taken.has(device)) return device
  }
  return null
}

export interface WishedDisk {
  readonly bootIndex: number | null
  readonly device: string | null
}

export type DevicesDecision =
  | { readonly ok: true; readonly devices: readonly string[] }
  | {
      readonly ok: false
      readonly refusal: 'NO_ROOT_DISK' | 'TWO_ROOT_DISKS' | 'DEVICE_INVALID' | 'DEVICE_TAKEN'
    }

/**
 * Names for the disks of a new server, in the order of `disks`. The root disk has boot index 0 and the first name, whatever was asked
 * for; the others have what they ask for, and else the next free one, first by boot index, then in the order given.
 */
export function nameDisks(disks: readonly WishedDisk[]): DevicesDecision {
  const roots = disks.filter((disk) => disk.bootIndex === 0).length
  if (roots !== 1) return { ok: false, refusal: roots === 0 ? 'NO_ROOT_DISK' : 'TWO_ROOT_DISKS' }
  const devices: (string | null)[] = []
  const taken = new Set([ROOT_DEVICE])
  for (const disk of disks) {
    if (disk.bootIndex === 0 || disk.device === null) {
      devices.push(disk.bootIndex === 0 ? ROOT_DEVICE : null)
      continue
    }
    const device = normaliseDevice(disk.device)
    if (device === null) return { ok: false, refusal: 'DEVICE_INVALID' }
    if (taken.has(device)) return { ok: false, refusal: 'DEVICE_TAKEN' }
    taken.add(device)
    devices.push(device)
  }
  const open = [...disks.keys()].filter((index) => devices[index] === null)
  const rank = (index: number) => disks[index]?.bootIndex ?? Number.POSITIVE_INFINITY
  open.sort((a, b) => (rank(a) === rank(b) ? a - b : rank(a) - rank(b)))
  for (const index of open) {
    const device = nextDevice(taken)
    if (device === null) return { ok: false, refusal: 'DEVICE_TAKEN' }
    taken.add(device)
    devices[index] = device
  }
  return { ok: true, devices: devices.map((device) => device ?? ROOT_DEVICE) }
}
