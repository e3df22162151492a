// SPDX-License-Identifier: Apache-2.0

// What is asked of a station, and what it answers: structured clones between two threads.

/** A host that was asked by a packet: whom it saw, and how long the way there and back took. */
export type Echo = { readonly seen: string; readonly ms: number }

/** A finished process. `ms` is from its exec to its exit. */
export type Finished = {
  readonly exitCode: number
  readonly stdout: string
  readonly stderr: string
  readonly ms: number
}

export type Uplink = { readonly name: string; readonly mac: string; readonly addresses: readonly string[] }

/** Everything that can be asked of a station, by name. */
export type Orders = {
  /** Echo from now on what reaches this address. */
  echo: { order: { address: string }; answer: undefined }
  /** Send a datagram `from` an address of its own; undefined: no answer. */
  ask: { order: { from: string; to: string; timeoutMs: number }; answer: Echo | undefined }
  /** The routers between here and there, by their addresses; undefined for one that does not answer. */
  trace: { order: { from: string; to: string }; answer: readonly (string | undefined)[] }
  /** Run a process in the station's namespace. */
  run: {
    order: { file: string; env: Record<string, string>; stdin: Uint8Array; timeoutMs: number }
    answer: Finished
  }
  /** The NIC of the default route; undefined: there is none. */
  uplink: { order: Record<string, never>; answer: Uplink | undefined }
  /** Its IPv4 addresses of global scope. */
  addresses: { order: Record<string, never>; answer: readonly { link: string; address: string }[] }
  /** The kernel's state, one line per link, address, route, rule, proxy entry and firewall element. */
  kernel: { order: Record<string, never>; answer: readonly string[] }
}
export type Verb = keyof Orders

/** UDP port of the echo. */
export const ECHO_PORT = 7
