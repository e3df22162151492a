// SPDX-License-Identifier: Apache-2.0
import type { Limits } from '../limits.ts'
import type { Tokens } from './renewal.ts'
import type { Token } from './token.ts'

/** Who the session is, as Keystone said with the token. */
export type TokenInfo = Pick<Token, 'user' | 'project' | 'roles' | 'receivedAtMs' | 'expiresAtMs'>

export type Identity = {
  /** Logs in if there is no token yet. */
  tokenInfo(limits: Limits): Promise<TokenInfo>
  /** The project of the token. @throws {OpenStackError} if the token has none. */
  projectId(limits: Limits): Promise<string>
}

export function createIdentity(tokens: Tokens, withoutProject: (token: Token) => Error): Identity {
  return {
    async tokenInfo(limits) {
      const { user, project, roles, receivedAtMs, expiresAtMs } = await tokens.current(limits)
      return { user, project, roles, receivedAtMs, expiresAtMs }
    },
    async projectId(limits) {
      const token = await tokens.current(limits)
      if (token.project === undefined) throw withoutProject(token)
      return token.project.id
    },
  }
}
