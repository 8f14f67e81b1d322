/** What the door of replicas answers instead of doing as it was asked. */
export class Refusal extends Error {
  readonly status: number
  readonly code: string

  constructor(status: number, code: string, text: string) {
    super(text)
    this.status = status
    this.code = code
  }
}
