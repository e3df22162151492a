// SPDX-License-Identifier: Apache-2.0

// A service of a cloud that is really there, behind a door that counts who goes in.

import { createServer, type IncomingMessage, request, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'

export type CountedService = AsyncDisposable & {
  /** The door's address, instead of the service's own. */
  readonly url: string
  /** `METHOD path` of each request since the start or `forget`, without ids and queries. */
  calls(): readonly string[]
  forget(): void
}

/** @param target the service's own address, plain HTTP */
export async function countedService(target: string): Promise<CountedService> {
  const { hostname, port } = new URL(target)
  let calls: string[] = []
  const pass = (from: IncomingMessage, to: ServerResponse) => {
    calls.push(`${from.method} ${from.url!.replace(/\?.*/, '').replaceAll(/[0-9a-f-]{36}/g, 'ID')}`)
    const onward = request({ hostname, port, method: from.method, path: from.url, headers: from.headers }, answer => {
      to.writeHead(answer.statusCode!, answer.headers)
      answer.pipe(to)
    })
    onward.on('error', () => to.destroy())
    from.pipe(onward)
  }
  const server = createServer(pass)
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    calls: () => calls,
    forget: () => {
      calls = []
    },
    async [Symbol.asyncDispose]() {
      server.closeAllConnections()
      await new Promise(resolve => server.close(resolve))
    },
  }
}
