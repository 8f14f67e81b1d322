/** A copy in which one bit is another; bit 0 is the lowest of the first byte. */
export function flipped(bytes: Uint8Array, bit: number): Buffer {
  const damaged = Buffer.from(bytes)
  damaged[bit >> 3] = (damaged[bit >> 3] as number) ^ (1 << (bit & 7))
  return damaged
}
