/** A yes or no as both engines store it. */
export type Bit = 0 | 1

export const bit = (yes: boolean): Bit => (yes ? 1 : 0)
