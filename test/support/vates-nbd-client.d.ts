/** The part of the package that tests use; it brings no types of its own. */
declare module '@vates/nbd-client' {
  export default class NbdClient {
    constructor(settings: { address: string; port: number; exportname: string; cert?: string })
    connect(): Promise<void>
    disconnect(): Promise<void>
    readBlock(index: number, size: number): Promise<Buffer>
  }
}
