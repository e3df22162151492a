// SPDX-License-Identifier: Apache-2.0

/** Nova v2.1: servers, their interfaces, microversions. */
import type { RouteTable } from '../call.ts'
import { interfaceRoutes } from './interface.ts'
import { serverRoutes } from './server.ts'
import { showVersion, withVersions } from './version.ts'

export const computeRoutes: RouteTable = [
  ['GET', '/', showVersion],
  ['GET', '/v2.1', showVersion],
  ...withVersions([...serverRoutes, ...interfaceRoutes]),
]

/** The versions are open to everybody. */
export const computeOpen = (_method: string, path: readonly string[]): boolean => path.length < 2
