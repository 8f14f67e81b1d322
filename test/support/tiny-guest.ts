/**
 * The smallest guest that a hypervisor can be tested with: one boot sector, alive in a fifth of a second. It says TINY UP on its serial
 * console, TINY OFF before it powers off, TINY EJECT when it released a device. Source: tiny-guest.S.
 */
const CODE = [
  '+jHAjtiOwI7QvAB8+4gWRH26Aga4AAHvvtF86JsA9gb9fRB1EPYG/X0BdBa6AAbt9sQBdA2+2nzofgC6BAa4',
  'ACDv9gb9fQJ0LGYxyWaJyLrQDGbvusQMZu1mhcB0EWaD+P90C7rIDGbvvuR86EoAQYP5MHLX9gb9fQR0Br4B',
  'feg3APYG/X0IdA+0QugXAGb/BgCAtEPoDQD2Bv19BA+Fff/06Xn/vkh9ihZEfTDAzRNzBr7wfOgBAMOshMB0',
  'EojEuv0D7KggdPu6+AOI4O7r6cNUSU5ZIFVQCgBUSU5ZIE9GRgoAVElOWSBFSkVDVAoAVElOWSBESVNLIEVS',
  'Uk9SCgBmbG9vZCBmbG9vZCBmbG9vZCBmbG9vZCBmbG9vZCBmbG9vZCBmbG9vZCBmbG9vZCBmbG9vZCBmbG9v',
  'ZCBmbG9vZAoAAI10ABAAAQAAgAAAAQ==',
].join('')

/** What the guest does; it does nothing else. */
export interface TinyHabits {
  /** Powers off when asked to. */
  readonly obeys?: boolean
  /** Releases devices when asked to. */
  readonly releases?: boolean
  /** Writes to its console as fast as it can. */
  readonly floods?: boolean
  /** Reads sector 1, adds one to its first four bytes and writes it, 18 times a second. Waits while its disk does. */
  readonly counts?: boolean
  /** Powers itself off at once. */
  readonly leaves?: boolean
}

export function tinyGuest(habits: TinyHabits = {}): Buffer {
  const sector = Buffer.alloc(512)
  Buffer.from(CODE, 'base64').copy(sector)
  const { obeys, releases, floods, counts, leaves } = habits
  sector[509] = [obeys, releases, floods, counts, leaves].reduce(
    (bits, habit, index) => bits | (habit === true ? 1 << index : 0),
    0,
  )
  sector.writeUInt16LE(0xaa55, 510)
  return sector
}
